"""Labels for millions of images: resumable, in shards, the same bytes whoever writes them."""
