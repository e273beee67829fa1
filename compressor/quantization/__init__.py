"""Networks that train as their quantized files will answer."""
