"""`python -m longalign_data` is `longalign`."""

from longalign_data.cli.main import main

main()
