"""From encoded bytes to uint8 RGB: one file for each format, and what they share.

`docs/bundle.md`, section 4, says which bytes come out; the C++ library follows the same text.  Pillow decodes the
pixels.  What decides whether a file is whole, which pixels it promises and how it is turned is read here, and Pillow
is handed only what it needs for the pixels, so that neither large metadata nor a switch of the program around it
(`ImageFile.LOAD_TRUNCATED_IMAGES`, `Image.MAX_IMAGE_PIXELS` and the like) changes an answer.
"""
