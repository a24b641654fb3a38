"""Commands beside training: batch methods compared, a work model fitted, gradients by length."""
