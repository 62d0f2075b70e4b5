-- Orthanc sends each CT series to the node once it is stable (StableAge seconds without
-- a new instance). What comes back is of other modalities and goes nowhere.

local NODE = 'node'  -- Its name in DicomModalities of orthanc.json.

-- A node that is full or being updated refuses associations; Orthanc calls the job
-- failed and leaves it there. Each new series gives the failed ones another try.
local function send_failed_again()
  for _, job in pairs(ParseJson(RestApiGet('/jobs?expand'))) do
    if job['Type'] == 'DicomModalityStore' and job['State'] == 'Failure' then
      RestApiPost('/jobs/' .. job['ID'] .. '/resubmit', '')
    end
  end
end

function OnStableSeries(series, tags, metadata)
  if tags['Modality'] == 'CT' then
    send_failed_again()
    -- As one job, one association: SendToModality() would take an instance only.
    local job = {Resources = {series}, Synchronous = false}
    RestApiPost('/modalities/' .. NODE .. '/store', DumpJson(job, true))
  end
end
