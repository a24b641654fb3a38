"""Long-context instruction data: documents in, packed and weighted training shards out.

The command line is `longalign`; the README walks one record through every stage.
"""

__version__ = "0.1.0"
