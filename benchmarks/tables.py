"""Tables at the terminal."""


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Prints rows below a head, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print(row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]), sep='   ')
    print(flush=True)
