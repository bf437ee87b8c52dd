"""`rsd doctor`"""


def doctor() -> None: ...
