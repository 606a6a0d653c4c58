"""What the C++ library returns for a bundle that it refuses: `samdeploy_status` of cpp/include/samdeploy.h."""

NO_BUNDLE, UNSAFE_PATH, BAD_MANIFEST, NEWER, CHANGED, ARRAY, TENSORS, WRONG_ANSWERS, UNAVAILABLE = range(2, 11)
