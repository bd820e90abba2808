//go:build !linux

package main

func hog() {}
