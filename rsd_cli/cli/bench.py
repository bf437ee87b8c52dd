"""`rsd bench`"""


def bench() -> None: ...
