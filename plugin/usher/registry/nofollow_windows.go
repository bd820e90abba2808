package registry

const noFollow = 0
