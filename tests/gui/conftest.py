from driven_window import open_window, voice  # noqa: F401
from virtual_devices import screen, sound_server  # noqa: F401
