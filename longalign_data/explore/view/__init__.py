"""`longalign view`: a build in the browser, on this machine, read only."""
