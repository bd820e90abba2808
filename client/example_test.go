package client_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/usher-agent/usher/client"
)

// A program that needs a slot for as long as it works.
func ExampleOpen() {
	ctx := context.Background()
	session, err := client.Open(ctx)
	if errors.Is(err, client.ErrAgentAway) {
		log.Fatal("the licence agent is not running: ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	lease, err := session.Acquire(ctx, client.Slots("streams", 1))
	if errors.Is(err, client.ErrNoSlots) {
		log.Fatal("all streams are in use; try again later")
	} else if err != nil {
		log.Fatal(err)
	}
	defer lease.Close()
	fmt.Println("working with a slot of", lease.Info().Pool)
	// Output: working with a slot of streams
}

// Waiting for a slot, a minute at most.
func ExampleSession_Acquire() {
	ctx := context.Background()
	session, err := client.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	request := client.Slots("streams", 1)
	request.WaitSeconds = 60
	request.Labels = map[string]string{"camera": "door"}
	lease, err := session.Acquire(ctx, request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lease.Info().State)
	if err := lease.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: held
}

// Stop when the slot is lost.
func ExampleLease_Done() {
	ctx := context.Background()
	session, err := client.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	lease, err := session.Acquire(ctx, client.Slots("streams", 1))
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Close()
	work := time.After(time.Millisecond)
	select {
	case <-work:
		fmt.Println("done")
	case <-lease.Done():
		fmt.Println("the slot is lost:", lease.Err())
	}
	// Output: done
}

// Ask for a feature.
func ExampleSession_Feature() {
	ctx := context.Background()
	session, err := client.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	plan, err := session.Feature(ctx, "plan")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(plan.Enabled, plan.Value)
	// Output: true basic
}

// Ask for the verdict.
func ExampleSession_License() {
	ctx := context.Background()
	session, err := client.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	license, err := session.License(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(license.State, license.Code)
	// Output: valid VALID
}

// Follow the licence: the first value is the licence in force.
func ExampleSession_Watch() {
	ctx := context.Background()
	session, err := client.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	for license := range session.Watch(ctx) {
		fmt.Println("the plan is", license.Features["plan"].Value)
		break
	}
	// Output: the plan is basic
}

// A product that runs without a licence agent if need be.
func ExampleFailOpen() {
	ctx := context.Background()
	session, err := client.Open(ctx, client.WithSocket("/nowhere/usher.sock"), client.FailOpen())
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	lease, err := session.Acquire(ctx, client.Slots("streams", 1))
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Close()
	fmt.Println("backed by an agent:", lease.Backed(), "- given so:", session.Stats().FailedOpen)
	// Output: backed by an agent: false - given so: 1
}

// The agent must prove that the vendor's licence names it. A product embeds the key.
func ExampleWithVendor() {
	// //go:embed k1.pub
	var k1 []byte = []byte(
		"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC " +
			"KEY-----\n")
	key, err := client.ParseKey(k1)
	if err != nil {
		log.Fatal(err)
	}
	vendor := client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k1": key}}
	session, err := client.Open(context.Background(), client.WithVendor(vendor))
	if errors.Is(err, client.ErrNotProven) {
		fmt.Println("somebody else listens on the socket")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	fmt.Println("proven:", session.Proven())
	// Output: somebody else listens on the socket
}
