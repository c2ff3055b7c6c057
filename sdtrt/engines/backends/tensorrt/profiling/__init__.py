"""Times of engines and their layers, as trtexec and TREx name them."""
