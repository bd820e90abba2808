module github.com/usher-agent/usher/plugin/elastic/acceptance

go 1.26.0

replace (
	github.com/usher-agent/usher => ../../..
	github.com/usher-agent/usher/client => ../../../client
)

require (
	github.com/elastic/cloud-sdk-go v1.25.0
	github.com/usher-agent/usher v0.0.0
	github.com/usher-agent/usher/client v0.0.0
)
