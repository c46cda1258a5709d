from virtual_devices import sound_server  # noqa: F401
