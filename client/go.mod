module github.com/usher-agent/usher/client

go 1.26
