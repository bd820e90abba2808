//go:build !linux

package files

func readOnly(string) bool { return false }

func unmapped(int) bool { return false }
