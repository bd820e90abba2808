package agent

import (
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/places"
	"github.com/usher-agent/usher/enforcer"
)

// The pause before those who wait are told of their places, and the shortest time between two walks along the queues.
const placesFirst, placesEvery = 200 * time.Millisecond, time.Second

// openPlaces has those who wait told of their places, as far as anybody listens.
func (o *opening) openPlaces() {
	o.places = places.New(places.Config{First: placesFirst, Every: placesEvery, Heard: o.feeds.Heard,
		Walk:   func(names []string, each func(time.Time, []enforcer.Place)) { o.desk.Places(names, each) },
		Queues: func() []string { return o.desk.Queues() },
		Tell: func(now time.Time, some []places.Place) {
			for _, p := range some {
				o.feeds.Waiting(now, p.Place, p.Estimate)
			}
		}})
}

// watchers are told of the desk's events for those who watch.
type watchers struct {
	*api.Feeds
	places *places.Teller
}

// Observe is called under the desk's lock, and waits for nothing.
func (w watchers) Observe(ev *enforcer.Event) {
	w.Feeds.Observe(ev)
	w.places.Observe(ev)
}
