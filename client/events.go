package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/usher-agent/usher/client/wire"
)

const eventsPath = "/v1/events"

// Events returns the licence in force and then the events from now on, until ctx ends or the agent goes. The last value
// carries the error.
func (c *Client) Events(ctx context.Context) iter.Seq2[wire.Event, error] {
	return func(yield func(wire.Event, error) bool) {
		res, err := c.send(ctx, "GET", eventsPath, nil)
		if err != nil {
			yield(wire.Event{}, err)
			return
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var ev wire.Event
			if err := json.Unmarshal([]byte(data), &ev); err != nil {
				yield(wire.Event{}, c.away(fmt.Errorf("an event cannot be read: %w", err)))
				return
			}
			if !yield(ev, nil) {
				return
			}
		}
		err = lines.Err()
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case c.unheard(res) != nil:
			err = c.unheard(res)
		case err == nil:
			err = c.away(errors.New("the stream has ended"))
		default:
			err = c.away(err)
		}
		yield(wire.Event{}, err)
	}
}
