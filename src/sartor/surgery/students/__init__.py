"""Networks of which whole layers and blocks are left out, too, and to which skips are added."""
