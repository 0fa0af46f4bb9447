//! Programs to start from; each is a file beside this folder.
