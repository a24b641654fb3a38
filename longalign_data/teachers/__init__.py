"""Those who ask and answer: `table` names them, `base` says what they are."""
