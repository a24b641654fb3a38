"""What can be said of an answer without asking anyone: pure functions of document, question and answer.

`table` names the checks, `base` says what one returns, `duplicates` compares the questions of a whole corpus.
"""
