package keygen

// productObject returns the product in the API's form.
func (x *request) productObject() object {
	id := x.about.productID()
	for _, o := range x.about.included {
		if o["type"] == "products" && o["id"] == id {
			return x.resource(o)
		}
	}
	return object{"type": "products", "id": id, "attributes": object{"name": id},
		"relationships": object{"account": x.ofAccount()}, "links": object{"self": x.at("products", id)}}
}

func (x *request) showProduct() *response { return show(x.productObject()) }

// ofResource answers about what a machine, process or component belongs to, if there is that resource.
func ofResource(exists func(*request) *kept, missing func(string) *response,
	about func(*request, *kept) *response) func(*request) *response {
	return func(x *request) *response {
		k := exists(x)
		if k == nil {
			return missing(x.args[0])
		}
		return about(x, k)
	}
}

func (x *request) askedMachine() *kept { return x.machine(x.args[0]) }

func (x *request) askedProcess() *kept { return x.process(x.args[0]) }

// askedComponent returns the machine of the component that a request names.
func (x *request) askedComponent() *kept {
	for _, k := range x.all(recordMachine) {
		for _, c := range k.Components {
			if c.ID == x.args[0] || c.Fingerprint == x.args[0] {
				return k
			}
		}
	}
	return nil
}

func (x *request) productOf(*kept) *response { return x.showProduct() }

func (x *request) licenseOf(*kept) *response { return show(x.licenseObject()) }

func (x *request) machineOf(k *kept) *response {
	m := k
	if k.Kind == recordProcess {
		m = x.machine(k.Machine)
	}
	if m == nil {
		return noMachineOf(k.Machine)
	}
	return show(x.machineObject(m, ""))
}

// userObject returns a user in the API's form, as far as Keygen's file has it.
func (x *request) userObject(u user) object {
	for _, o := range x.about.included {
		if o["type"] == "users" && o["id"] == u.id {
			return x.resource(o)
		}
	}
	return object{"type": "users", "id": u.id, "attributes": object{}, "links": object{"self": x.at("users", u.id)}}
}

func (x *request) listUsers() *response {
	out := []object{}
	for _, u := range x.about.users() {
		out = append(out, x.userObject(u))
	}
	return x.page(out)
}

// showOwner returns the licence's owner.
func (x *request) showOwner() *response { return x.owner(x.about.related("owner")) }

func (x *request) ownerOf(k *kept) *response { return x.owner(k.Owner) }

// owner returns the user with an id or e-mail address.
func (x *request) owner(name string) *response {
	for _, u := range x.about.users() {
		if name != "" && (u.id == name || u.email == name) {
			return show(x.userObject(u))
		}
	}
	return notFound("The requested owner was not found")
}
