package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// A program that needs a slot for as long as it runs.
func ExampleClient_Hold() {
	c := client.New("")
	defer c.Close()
	held, err := c.Hold(context.Background(), wire.AcquireRequest{Pool: "streams"})
	switch {
	case errors.Is(err, client.ErrNoSlots):
		fmt.Println("all slots are in use; try again later")
		return
	case err != nil:
		log.Fatal(err)
	}
	defer held.Close()
	select {
	case <-held.Done():
		log.Fatal("the slot is lost: ", held.Err())
	default:
		// Work.
	}
}
