"""Project tracks over HW3: each a folder, with what they share in blocks. HW3 imports none of them."""
