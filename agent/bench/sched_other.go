//go:build !linux

package main

import "time"

const hasCPUTime = false

func cpuTime(...int) (time.Duration, error) { return 0, nil }

func processors() (needed, stolen int64) { return 0, 0 }

func pin(int) (func(), error) { return func() {}, nil }

func yieldToAll() error { return nil }

func isMemory(string) bool { return false }

func become(int) error { return nil }

func resetPeak(int) error { return nil }

func program(int) string { return "sleep" }
