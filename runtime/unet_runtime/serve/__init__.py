"""Models as an HTTP service: photo in, result out; Open Inference Protocol v2; a page for people."""
