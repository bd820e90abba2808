module github.com/usher-agent/usher/plugin/ucloud/acceptance

go 1.26.0
