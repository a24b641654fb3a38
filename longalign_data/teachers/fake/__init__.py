"""A provider to test against: a real HTTP server on this machine that answers without a model and without a bill.

`scenario` says how it behaves, `answers` makes the replies, `state` keeps limits, caches, batches and the meter, `server`
speaks the wires: Messages, Message Batches, count_tokens, Chat Completions, Files and Batches.
"""

from longalign_data.teachers.fake.scenario import Scenario, load_scenario
from longalign_data.teachers.fake.server import FakeServer

__all__ = ["FakeServer", "Scenario", "load_scenario"]
