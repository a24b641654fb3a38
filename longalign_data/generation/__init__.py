"""Selected documents to samples: a teacher asks five questions about each, and answers one of them.

`exchange` says what comes next for a document, `ledger` keeps every request and raw reply, `asking` fills the ledger,
`generate` turns it into the table.
"""
