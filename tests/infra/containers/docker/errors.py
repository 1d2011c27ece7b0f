"""The errors of the Docker SDK that the emulator knows."""


class APIError(Exception):
    pass


class ImageNotFound(Exception):
    pass


class NotFound(Exception):
    pass
