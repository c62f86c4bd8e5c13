//go:build tools

// Package tools names the programs of containerd that a bare lab runs, so that go.mod and go.sum
// pin them and everything they are built from.
package tools

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
