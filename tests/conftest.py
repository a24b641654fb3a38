import os
import signal

from hypothesis import HealthCheck, settings

# The same examples in every run, and no bound on their time: what a busy machine or an unlucky draw would fail is no news of
# the change under test. `pytest --hypothesis-profile=drawn` draws them anew.
settings.register_profile(
    "drawn", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.register_profile("alike", settings.get_profile("drawn"), derandomize=True)
settings.load_profile("alike")

# Threads wait for one another by spinning: where other tests use the same cores, two of them are slower than one by far.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
