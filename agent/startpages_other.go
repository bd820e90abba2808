//go:build !linux

package agent

func dropStartPages() error { return nil }
