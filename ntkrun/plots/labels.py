"""Names that users have given, as matplotlib shall print them."""


def words(name: str) -> str:
    """A name as it is, never as a formula."""
    return name.replace("$", r"\$")
