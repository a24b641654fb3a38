"""`longalign report`: a build as one HTML file that needs nothing else."""
