"""What goes wrong on or on the way to a device."""

from compress_export.exit_codes import ExitCode


class DeviceError(RuntimeError):
    """A device could not be reached or could not do what was asked.

    The message is one line that says what to do; it doesn't name the device.

    Attributes:
        code: 3, or 4 where all that is missing is a measurement.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.TOOL_FAILED) -> None:
        super().__init__(message)
        self.code = code
