"""The decisions of a release as pure functions, the nouns they speak of, and the clients that talk to the world."""
