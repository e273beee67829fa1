"""What goes wrong on or on the way to a device."""


class DeviceError(RuntimeError):
    """A device could not be reached or could not do what was asked. Exit code 3.

    The message is one line that says what to do; it doesn't name the device.
    """
