"""What can happen to a file."""


def flip(at, bits=0xFF):
    return lambda content: content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def become_a_directory(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage
