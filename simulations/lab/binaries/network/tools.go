//go:build tools

// Package tools names the programs beside Kubernetes that a bare lab runs, so that go.mod and
// go.sum pin them and everything they are built from.
package tools

import (
	_ "github.com/containernetworking/plugins/plugins/ipam/host-local"
	_ "github.com/containernetworking/plugins/plugins/main/bridge"
	_ "github.com/containernetworking/plugins/plugins/main/loopback"
	_ "github.com/containernetworking/plugins/plugins/meta/portmap"
	_ "go.etcd.io/etcd/server/v3"
	_ "sigs.k8s.io/kube-network-policies/cmd"
)
