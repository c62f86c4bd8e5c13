// The modules whose files the tests read. go.sum names each, its version and its checksum; nothing is built of them.
module hanse.dev/tests/modules

go 1.26.0
