"""Here so that pytest puts this folder on the path: tests in the folders below import `local_stack`."""
