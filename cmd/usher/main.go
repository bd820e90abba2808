// Command usher is the licence sidecar and its command line.
package main

func main() {}
