"""The orientation tag in the first bytes of a JPEG file: CIPA DC-008 (Exif 2.32), sections 4.5.4 and 4.6.4.

Loads no TensorFlow; `exif.py` does the same in graphs, and turns pixels.
"""

TAG, SHORT = 0x0112, 3  # of the orientation, and the type of its value
SIGNATURE = b"Exif\0\0"
HEAD = 4096  # bytes in which an Exif segment is looked for
ENTRIES = 100  # of the tag's directory that are looked at; cameras write about 12
SEGMENT = len(SIGNATURE) + 4  # a segment's marker and length, and what an Exif segment then begins with


def stored_orientation(head: bytes) -> int:
    """The orientation, 1 to 8, by the first bytes of a JPEG file; 1 where they have none, or none that is valid.

    `exif.orientations` for bytes outside of a graph, a hundred times as fast.
    """
    return _found(head) or 1


def may_be_turned(head: bytes) -> bool:
    """Whether a JPEG file is to be turned, by its first ``HEAD`` bytes; also where its Exif segment begins in these and
    the tag, if there is one, lies beyond them."""
    found = _found(head)
    return found is None or found > 1


def _found(head: bytes) -> int | None:
    """The orientation; None where it lies beyond these bytes."""
    if not head.startswith(b"\xff\xd8"):
        return 1
    place = 2
    while place + SEGMENT <= len(head) and head[place] == 0xFF and may_precede(head[place + 1]):
        if head[place + 1] == 0xE1 and head.startswith(SIGNATURE, place + 4):
            return _value(head, place + SEGMENT)
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return 1


def may_precede(marker):
    """Whether a segment may stand in front of an Exif segment: an application's, or a comment."""
    return (marker >= 0xE0) & (marker <= 0xEF) | (marker == 0xFE)


def _value(head: bytes, tiff: int) -> int | None:
    beyond = None if len(head) >= HEAD else 1
    if tiff + 8 > len(head):
        return beyond
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(head[tiff : tiff + 4])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], order)

    directory = tiff + number(tiff + 4, 4)
    if directory + 2 > len(head):
        return beyond
    for entry in range(min(number(directory, 2), ENTRIES)):
        at = directory + 2 + 12 * entry
        if at + 10 > len(head):
            return beyond
        if number(at, 2) == TAG:
            value = number(at + 8, 2)
            return value if number(at + 2, 2) == SHORT and 1 <= value <= 8 else 1
    return 1
