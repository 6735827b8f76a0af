-- The health of a BuildKitPool for Argo CD: resource.customizations.health.buildpool.dev_BuildKitPool
-- in the ConfigMap argocd-cm (docs/how-to/gitops.md). It judges as kstatus does.
-- A pool without builders is Healthy, as a Deployment is: Suspended would hold up a sync wave.
local metadata, status = obj.metadata, obj.status or {}
if metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "The pool is being deleted." }
end
if status.observedGeneration ~= metadata.generation then
  return { status = "Progressing", message = "No operator has looked at this spec yet." }
end
local said = {}
for _, condition in ipairs(status.conditions or {}) do
  said[condition.type] = condition
end
if said.Stalled ~= nil and said.Stalled.status == "True" then
  return { status = "Degraded", message = said.Stalled.message }
end
if said.Reconciling ~= nil and said.Reconciling.status == "True" then
  return { status = "Progressing", message = said.Reconciling.message }
end
if said.Ready == nil then
  return { status = "Progressing", message = "No operator has said yet whether the pool is ready." }
end
if said.Ready.status ~= "True" then
  return { status = "Progressing", message = said.Ready.message }
end
return { status = "Healthy", message = said.Ready.message }
