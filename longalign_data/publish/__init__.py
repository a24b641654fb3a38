"""A build on its way to other people: its card, what may be published, the upload, and the checks of what stands."""
