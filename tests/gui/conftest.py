from virtual_devices import screen, sound_server  # noqa: F401
