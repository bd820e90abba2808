//go:build !linux

package api

// direct is for Linux alone.
type direct struct{}

func (c *conn) goDirect() {}

// receive reads from the connection itself.
func (c *conn) receive(p []byte) (int, error) { return c.UnixConn.Read(p) }

// transmit writes to the connection itself.
func (c *conn) transmit(p []byte) (int, error) { return c.UnixConn.Write(p) }
