"""What every test may rely on, however and wherever the suite was started."""

import signal

from hypothesis import HealthCheck, settings

# No assertion on time: on a busy machine an example may take any time.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A script's background jobs start with Ctrl-C ignored, which programs under test would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
